"""Pages for browsers: one guarded app, on which each page is mounted as a module with its routes.

`app.create_app` makes it from `page.Page` records; `access.Access` says who is asking and `guard` refuses the rest.
"""
