"""Every exercise by its lesson, for the instructors' guide."""

from support.exercises import blocking, export, product_page

EXERCISES = {module.EXERCISE.lesson: module.EXERCISE for module in (blocking, product_page, export)}
