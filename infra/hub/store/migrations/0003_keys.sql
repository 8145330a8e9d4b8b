-- When a key was last used, and who is no longer let in. Times are seconds since 1970 in UTC.

ALTER TABLE api_key ADD COLUMN last_used_at REAL;   -- up to a minute late
CREATE INDEX api_key_user ON api_key (user_id);

ALTER TABLE user ADD COLUMN removed_at REAL;        -- the keys are gone; runs and projects stay under the name
ALTER TABLE user ADD COLUMN sessions_end REAL;      -- sign-ins up to this time are no longer good
