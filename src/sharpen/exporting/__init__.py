"""A trained model as others take it: a Hugging Face folder, a GGUF file, a model card."""
