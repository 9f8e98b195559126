-- What was lost is told with how many copies it had: a single copy is lost with its pool, as its owner chose; two are not to be.
DROP FUNCTION metadata.lost_names(uuid, int, text, text, int);
CREATE FUNCTION metadata.lost_names(p_repair uuid, p_vnode int, p_directory text, p_name text, p_limit int)
RETURNS TABLE (generation bigint, vnode int, directory text, name text, object_id uuid, size bigint, copies int) LANGUAGE sql VOLATILE AS $$
  SELECT fence.leased(), i.* FROM (VALUES (1)) one LEFT JOIN LATERAL (
    SELECT o.vnode, o.directory, o.name, o.object_id, o.size, o.copies FROM metadata.repair_item o
    WHERE o.repair = p_repair AND o.outcome = 'lost' AND (o.vnode, o.directory, o.name) > (p_vnode, p_directory, p_name)
    ORDER BY o.vnode, o.directory, o.name LIMIT p_limit) i ON true
$$;
