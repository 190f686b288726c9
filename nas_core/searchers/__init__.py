"""Which networks to evaluate: the first ones (`designs`), and the most promising next (`refinement`). No torch."""
