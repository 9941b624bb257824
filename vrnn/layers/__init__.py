"""The networks that every part of a model is made of."""
