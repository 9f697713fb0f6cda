"""Parts of the chat page: the stream behind it, the gate meter above it, the answers in it."""
