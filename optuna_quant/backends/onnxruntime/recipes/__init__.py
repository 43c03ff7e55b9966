"""Recipes: methods that change how the whole model is quantized."""
