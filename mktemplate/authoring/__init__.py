"""For who writes templates: the proof that one is right, its tests, its pages, and templates in transit."""
