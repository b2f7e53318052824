"""The course's own tools: build the book, run its notebooks, publish it, try it in other environments."""
