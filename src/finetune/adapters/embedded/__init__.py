"""The embedded demonstration: messages with a known true posterior, and text to pre-train on."""
