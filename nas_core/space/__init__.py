"""Networks as plain data: positions, blocks, genotypes, rules, their encodings. No torch."""
