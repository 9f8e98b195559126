-- Holds the number of the collector's migration.
SELECT 1;
