"""The search of ``finetune sweep``, by Optuna."""
