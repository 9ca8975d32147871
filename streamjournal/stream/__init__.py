"""The stream: where entries wait, in order, between an agent and its journals."""
