"""The database: everything that speaks SQL, nothing that speaks GraphQL."""
