-- Accounts and their keys (used on shard 1), and the feed by which authcaches learn of changes.
CREATE SCHEMA directory;

CREATE TABLE directory.account (
  uuid uuid PRIMARY KEY,
  login text COLLATE "C" NOT NULL UNIQUE,
  email text NOT NULL DEFAULT '',
  approved boolean NOT NULL DEFAULT true,
  operator boolean NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE directory.public_key (
  account uuid NOT NULL REFERENCES directory.account ON DELETE CASCADE,
  fingerprint_md5 text NOT NULL,
  fingerprint_sha256 text NOT NULL,
  pem text NOT NULL,
  name text NOT NULL DEFAULT '',
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (account, fingerprint_md5)
);

-- A row for each change of an account or its keys, in the transaction that makes it. Followers look a little behind the
-- newest number they saw: numbers are given before commit, so a lower one may become visible later.
CREATE TABLE directory.change (
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account uuid NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Accounts with their keys as JSON, all of them or those that changed after a number; and the newest number.
CREATE FUNCTION directory.accounts(p_after bigint)
RETURNS TABLE (generation bigint, newest bigint, accounts jsonb) LANGUAGE sql VOLATILE AS $$
  SELECT fence.leased(), (SELECT coalesce(max(seq), 0) FROM directory.change),
    (SELECT coalesce(jsonb_agg(jsonb_build_object(
        'uuid', a.uuid, 'login', a.login, 'email', a.email, 'approved', a.approved, 'operator', a.operator,
        'keys', (SELECT coalesce(jsonb_object_agg(k.fingerprint_md5, k.pem), '{}') FROM directory.public_key k WHERE k.account = a.uuid)
      ) ORDER BY a.login), '[]')
     FROM directory.account a
     WHERE p_after IS NULL OR a.uuid IN (SELECT c.account FROM directory.change c WHERE c.seq > p_after))
$$;

-- Both answer the account's uuid; `changed` says whether anything was written.
CREATE FUNCTION directory.create_account(p_uuid uuid, p_login text, p_email text, p_operator boolean)
RETURNS TABLE (generation bigint, changed boolean, uuid uuid) LANGUAGE plpgsql AS $$
DECLARE
  done boolean;
  found_uuid uuid;
BEGIN
  INSERT INTO directory.account (uuid, login, email, operator) VALUES (p_uuid, p_login, p_email, p_operator)
  ON CONFLICT (login) DO NOTHING;
  done := FOUND;
  IF done THEN
    INSERT INTO directory.change (account) VALUES (p_uuid);
  END IF;
  SELECT a.uuid INTO found_uuid FROM directory.account a WHERE a.login = p_login;
  RETURN QUERY SELECT fence.require(), done, found_uuid;
END$$;

CREATE FUNCTION directory.add_key(p_login text, p_md5 text, p_sha256 text, p_pem text, p_name text)
RETURNS TABLE (generation bigint, changed boolean, uuid uuid) LANGUAGE plpgsql AS $$
DECLARE
  done boolean := false;
  owner uuid;
BEGIN
  SELECT a.uuid INTO owner FROM directory.account a WHERE a.login = p_login;
  IF owner IS NOT NULL THEN
    INSERT INTO directory.public_key (account, fingerprint_md5, fingerprint_sha256, pem, name)
    VALUES (owner, p_md5, p_sha256, p_pem, p_name) ON CONFLICT DO NOTHING;
    done := FOUND;
    IF done THEN
      INSERT INTO directory.change (account) VALUES (owner);
    END IF;
  END IF;
  RETURN QUERY SELECT fence.require(), done, owner;
END$$;

CREATE FUNCTION directory.remove_key(p_login text, p_md5 text)
RETURNS TABLE (generation bigint, changed boolean, uuid uuid) LANGUAGE plpgsql AS $$
DECLARE
  done boolean := false;
  owner uuid;
BEGIN
  SELECT a.uuid INTO owner FROM directory.account a WHERE a.login = p_login;
  DELETE FROM directory.public_key k WHERE k.account = owner AND k.fingerprint_md5 = p_md5;
  done := FOUND;
  IF done THEN
    INSERT INTO directory.change (account) VALUES (owner);
  END IF;
  RETURN QUERY SELECT fence.require(), done, owner;
END$$;
