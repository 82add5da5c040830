"""Query encoders for services of one's own."""
