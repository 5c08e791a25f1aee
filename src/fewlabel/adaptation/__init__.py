"""From a frozen encoder to predictions."""
