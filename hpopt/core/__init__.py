"""The pure core: deciding, never doing."""
