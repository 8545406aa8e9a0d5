"""transformers, peft and accelerate behind the ports."""
