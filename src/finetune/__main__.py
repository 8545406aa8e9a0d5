"""``python -m finetune``: the same as the ``finetune`` command."""

from finetune.cli.main import run

if __name__ == "__main__":
    run()
