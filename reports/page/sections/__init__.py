"""The page's sections as plain values for the templates: one module and one template a section."""
