"""``python -m benchmarks.peers --cases DIRECTORY``."""

from benchmarks.peers import main


if __name__ == "__main__":
    main()
