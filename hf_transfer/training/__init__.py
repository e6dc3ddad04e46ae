"""Training: a model and its objectives in one module, the Trainers of all families, checkpoints, facts for cards."""
