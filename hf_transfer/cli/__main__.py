"""`python -m hf_transfer.cli`."""

from hf_transfer.cli import main

if __name__ == "__main__":
    main()
