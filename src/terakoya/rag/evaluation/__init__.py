"""How well a collection is searched and its questions are answered, measured on questions whose answers are known."""
