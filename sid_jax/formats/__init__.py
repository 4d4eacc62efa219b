"""Files to JSON and named tensors, and back; nothing is executed, and only types of layers are known here."""
