"""Raw files where they lie: folders, archives, lists."""
