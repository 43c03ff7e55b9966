"""Language models for benchmarks: a decoder of the Llama family, and what it is measured on."""
