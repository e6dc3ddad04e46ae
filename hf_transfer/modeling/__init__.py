"""Any Hugging Face model: its head and backbone, and what of its outputs the objectives see."""
