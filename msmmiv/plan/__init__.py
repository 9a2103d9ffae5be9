"""Planning: made-up trials whose truth is known."""
