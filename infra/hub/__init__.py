"""The sweep server's state: who may change it, when, and how it survives."""
