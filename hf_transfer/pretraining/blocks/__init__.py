"""What several pre-training objectives share: losses between two views, projection heads, momentum encoders."""
