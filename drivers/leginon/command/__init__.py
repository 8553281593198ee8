"""The external command: two scripts that Leginon sources, a quick client behind them, and finders that stay warm."""
