"""The pages of the board: Textual screens that turn keys into changes of a view, and views into lines."""
