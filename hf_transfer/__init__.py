"""Transferability in deep learning for Hugging Face."""
