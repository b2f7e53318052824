"""One figure a file; ``bncourse.explorers`` loads each when it is asked for."""
