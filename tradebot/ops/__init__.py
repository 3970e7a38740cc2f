"""Operations: what keeps an unattended engine honest, from outside (supervisor, proofs, health) and inside (beacon)."""
