-- Sub-users of accounts, with keys of their own.
CREATE TABLE directory.sub_user (
  uuid uuid PRIMARY KEY,
  account uuid NOT NULL REFERENCES directory.account ON DELETE CASCADE,
  login text COLLATE "C" NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  UNIQUE (account, login)
);

CREATE TABLE directory.sub_user_key (
  sub_user uuid NOT NULL REFERENCES directory.sub_user ON DELETE CASCADE,
  fingerprint_md5 text NOT NULL,
  fingerprint_sha256 text NOT NULL,
  pem text NOT NULL,
  name text NOT NULL DEFAULT '',
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (sub_user, fingerprint_md5)
);

CREATE FUNCTION directory.sub_users(p_account uuid) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT coalesce(jsonb_object_agg(u.login, jsonb_build_object('uuid', u.uuid, 'login', u.login, 'keys', (
      SELECT coalesce(jsonb_object_agg(k.fingerprint_md5, k.pem), '{}') FROM directory.sub_user_key k WHERE k.sub_user = u.uuid))), '{}')
  FROM directory.sub_user u WHERE u.account = p_account
$$;

-- As in 0003, with the sub-users.
CREATE OR REPLACE FUNCTION directory.accounts(p_after bigint)
RETURNS TABLE (generation bigint, newest bigint, accounts jsonb) LANGUAGE sql VOLATILE AS $$
  SELECT fence.leased(), (SELECT coalesce(max(seq), 0) FROM directory.change),
    (SELECT coalesce(jsonb_agg(jsonb_build_object(
        'uuid', a.uuid, 'login', a.login, 'email', a.email, 'approved', a.approved, 'operator', a.operator,
        'keys', (SELECT coalesce(jsonb_object_agg(k.fingerprint_md5, k.pem), '{}') FROM directory.public_key k WHERE k.account = a.uuid),
        'users', directory.sub_users(a.uuid)
      ) ORDER BY a.login), '[]')
     FROM directory.account a
     WHERE p_after IS NULL OR a.uuid IN (SELECT c.account FROM directory.change c WHERE c.seq > p_after))
$$;

-- Both answer the sub-user's uuid (NULL: no such account, no such sub-user); `changed` says whether anything was written.
CREATE FUNCTION directory.create_sub_user(p_uuid uuid, p_account_login text, p_login text)
RETURNS TABLE (generation bigint, changed boolean, uuid uuid) LANGUAGE plpgsql AS $$
DECLARE
  done boolean := false;
  owner uuid;
BEGIN
  SELECT a.uuid INTO owner FROM directory.account a WHERE a.login = p_account_login;
  IF owner IS NOT NULL THEN
    INSERT INTO directory.sub_user (uuid, account, login) VALUES (p_uuid, owner, p_login) ON CONFLICT (account, login) DO NOTHING;
    done := FOUND;
    IF done THEN
      INSERT INTO directory.change (account) VALUES (owner);
    END IF;
  END IF;
  RETURN QUERY SELECT fence.require(), done,
    (SELECT u.uuid FROM directory.sub_user u WHERE u.account = owner AND u.login = p_login);
END$$;

CREATE FUNCTION directory.add_sub_user_key(
  p_account_login text, p_login text, p_md5 text, p_sha256 text, p_pem text, p_name text
) RETURNS TABLE (generation bigint, changed boolean, uuid uuid) LANGUAGE plpgsql AS $$
DECLARE
  done boolean := false;
  u directory.sub_user;
BEGIN
  SELECT s.* INTO u FROM directory.sub_user s JOIN directory.account a ON a.uuid = s.account
    WHERE a.login = p_account_login AND s.login = p_login;
  IF u.uuid IS NOT NULL THEN
    INSERT INTO directory.sub_user_key (sub_user, fingerprint_md5, fingerprint_sha256, pem, name)
    VALUES (u.uuid, p_md5, p_sha256, p_pem, p_name) ON CONFLICT DO NOTHING;
    done := FOUND;
    IF done THEN
      INSERT INTO directory.change (account) VALUES (u.account);
    END IF;
  END IF;
  RETURN QUERY SELECT fence.require(), done, u.uuid;
END$$;
