"""Parts of the Chat page: the background decode, the gate meter, and the answers as HTML."""
