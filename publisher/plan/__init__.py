"""What we intend: the recipe a person writes, and the plan that says, module by module, what will happen."""
