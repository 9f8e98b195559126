-- Snaplinks: several names for the same bytes. Who else names them is known without asking every shard:
-- docs/decisions/0006-whose-bytes-are-these.md.

-- NULL: no other name has ever had these bytes. Else the number of this name's reference in `metadata.reference`.
ALTER TABLE metadata.entry ADD COLUMN reference uuid;

-- On the shard of the object id's own vnode: the names that bytes have, once a second one was wanted.
CREATE TABLE metadata.reference (
  vnode int NOT NULL,
  object_id uuid NOT NULL,
  reference uuid NOT NULL,
  directory text COLLATE "C" NOT NULL,
  name text COLLATE "C" NOT NULL,
  made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (vnode, object_id, reference)
);
CREATE INDEX reference_made_at ON metadata.reference (made_at);

-- A name of shared bytes was dropped, in the dropping transaction: its reference has to be given up at the bytes' home.
CREATE TABLE metadata.released (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  vnode int NOT NULL,
  account uuid NOT NULL,
  object_id uuid NOT NULL,
  reference uuid NOT NULL,
  size bigint NOT NULL,
  md5 bytea NOT NULL,
  group_id int NOT NULL,
  copies int NOT NULL,
  dropped_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE OR REPLACE FUNCTION metadata.discard(e metadata.entry) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF e.kind <> 'object' OR e.size = 0 THEN
    RETURN;
  ELSIF e.reference IS NULL THEN
    INSERT INTO metadata.garbage (vnode, account, object_id, size, md5, group_id, copies)
    VALUES (e.vnode, e.account, e.object_id, e.size, e.md5, e.group_id, e.copies);
  ELSE
    INSERT INTO metadata.released (vnode, account, object_id, reference, size, md5, group_id, copies)
    VALUES (e.vnode, e.account, e.object_id, e.reference, e.size, e.md5, e.group_id, e.copies);
  END IF;
END$$;

-- As in 0002, but that a replaced entry gets the new one's reference.
CREATE OR REPLACE FUNCTION metadata.put_entry(
  p_vnode int, p_directory text, p_entry jsonb, p_insert boolean, p_parent_is_root boolean, p_epoch bigint,
  any_of text[], none_of text[], p_limit bigint
) RETURNS TABLE (generation bigint, refused text) LANGUAGE plpgsql AS $$
DECLARE
  n metadata.entry := jsonb_populate_record(NULL::metadata.entry, p_entry);
  o metadata.entry;
  why text;
BEGIN
  PERFORM metadata.lock_directory(p_vnode, p_directory, false);
  n.vnode := p_vnode;
  n.directory := p_directory;
  LOOP
    -- A writer of the same name waits here; a first writer is held by the primary key below.
    SELECT * INTO o FROM metadata.entry e WHERE e.vnode = p_vnode AND e.directory = p_directory AND e.name = n.name FOR UPDATE;
    why := metadata.put_refusal(o, n, p_insert, p_parent_is_root, p_epoch, any_of, none_of, p_limit);
    IF why IS NOT NULL THEN
      RETURN QUERY SELECT fence.require(), why;
      RETURN;
    END IF;
    EXIT WHEN o.name IS NOT NULL;
    INSERT INTO metadata.entry SELECT n.* ON CONFLICT DO NOTHING;
    IF FOUND THEN
      PERFORM metadata.count_entry(p_vnode, p_directory, 1);
      RETURN QUERY SELECT fence.require(), NULL::text;
      RETURN;
    END IF;
    -- Somebody else was first, between our look and our insert: decide again, on what is there now.
  END LOOP;
  IF o.kind = 'directory' AND o.headers = n.headers AND o.role_tags = n.role_tags THEN
    -- mkdir of a directory that is there as wanted changes nothing that anybody sees.
    UPDATE metadata.entry e SET incarnation = n.incarnation
      WHERE e.vnode = p_vnode AND e.directory = p_directory AND e.name = n.name AND e.incarnation < n.incarnation;
  ELSE
    PERFORM metadata.discard(o);
    UPDATE metadata.entry e
      SET kind = n.kind, mtime = n.mtime, headers = n.headers, role_tags = n.role_tags, etag = n.etag, size = n.size, md5 = n.md5,
          content_type = n.content_type, object_id = n.object_id, account = n.account, group_id = n.group_id, copies = n.copies,
          incarnation = n.incarnation, reference = n.reference
      WHERE e.vnode = p_vnode AND e.directory = p_directory AND e.name = n.name;
  END IF;
  RETURN QUERY SELECT fence.require(), NULL::text;
END$$;

-- Names that these bytes have or are about to get: [{"reference", "directory", "name"}]. p_key is the object id.
CREATE FUNCTION metadata.add_references(p_vnode int, p_key text, p_references jsonb)
RETURNS TABLE (generation bigint) LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO metadata.reference (vnode, object_id, reference, directory, name)
  SELECT p_vnode, p_key::uuid, (r->>'reference')::uuid, r->>'directory', r->>'name' FROM jsonb_array_elements(p_references) r
  ON CONFLICT DO NOTHING;
  RETURN QUERY SELECT fence.require();
END$$;

-- From now on the entry says that its bytes have other names, if it still has these bytes.
CREATE FUNCTION metadata.share_entry(p_vnode int, p_directory text, p_name text, p_object_id uuid)
RETURNS TABLE (generation bigint, done boolean) LANGUAGE plpgsql AS $$
DECLARE
  there boolean;
BEGIN
  UPDATE metadata.entry e SET reference = coalesce(e.reference, e.object_id)
    WHERE e.vnode = p_vnode AND e.directory = p_directory AND e.name = p_name AND e.kind = 'object' AND e.object_id = p_object_id;
  there := FOUND;
  RETURN QUERY SELECT fence.require(), there;
END$$;

-- Give up one name of these bytes; when it was the last, they are garbage. May be repeated. p_bytes: {"account", "size", "md5",
-- "group_id", "copies"}. Answers whether the bytes became garbage by this call.
CREATE FUNCTION metadata.release_reference(p_vnode int, p_key text, p_reference uuid, p_bytes jsonb)
RETURNS TABLE (generation bigint, garbage boolean) LANGUAGE plpgsql AS $$
DECLARE
  b metadata.garbage := jsonb_populate_record(NULL::metadata.garbage, p_bytes);
  last_one boolean := false;
BEGIN
  -- Of two that give up the last two names, the second sees that the first has gone.
  PERFORM pg_advisory_xact_lock(hashtextextended(p_key, p_vnode));
  DELETE FROM metadata.reference r WHERE r.vnode = p_vnode AND r.object_id = p_key::uuid AND r.reference = p_reference;
  IF FOUND AND NOT EXISTS (SELECT FROM metadata.reference r WHERE r.vnode = p_vnode AND r.object_id = p_key::uuid) THEN
    INSERT INTO metadata.garbage (vnode, account, object_id, size, md5, group_id, copies)
    VALUES (p_vnode, b.account, p_key::uuid, b.size, b.md5, b.group_id, b.copies);
    last_one := true;
  END IF;
  RETURN QUERY SELECT fence.require(), last_one;
END$$;
