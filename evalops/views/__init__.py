"""What a person or a program sees: pure functions from values to text. Text is rendered from the JSON form."""
