"""From a question to an answer: what was found, whether it is enough, and what is said with which citations."""
