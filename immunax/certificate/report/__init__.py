"""The pages that people read: a report in HTML, and a model card."""
