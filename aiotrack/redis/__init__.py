"""Redis or Valkey: the client with its own time-outs, the keys, live events. Loaded on use."""
