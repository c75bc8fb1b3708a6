"""The stage export: the champion as a merged model, a GGUF file and an Ollama model."""
