"""What ``wasm-sandbox bench`` measures, and how: this library against the programs that run Python otherwise."""
