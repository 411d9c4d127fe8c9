"""Bodies of requests and answers, as pydantic models: what the interface promises."""
