-- Version 2: where the call of a person came from, as JSON of `people::who::Caller`.
ALTER TABLE vote ADD COLUMN caller TEXT;
ALTER TABLE approval ADD COLUMN decided_caller TEXT;
ALTER TABLE grant_ ADD COLUMN by_caller TEXT;
