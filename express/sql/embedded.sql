-- The embedded default: what is publicly known of the eXpress database, completed where nothing is.
-- It is a stand-in for a deployment server's database, never proof of what one looks like.

CREATE TABLE event_folder (
    folder_id int NOT NULL PRIMARY KEY,
    parent_id int REFERENCES event_folder (folder_id),
    name {varchar}(64) NOT NULL
);

CREATE TABLE event (
    event_id int NOT NULL PRIMARY KEY,
    folder_id int REFERENCES event_folder (folder_id),
    name {varchar}(128),
    description {varchar}(254),
    auto_delete smallint,
    visible smallint,
    initial_deployment smallint,
    version int
);

CREATE INDEX event_in_folder ON event (folder_id);

CREATE TABLE computer_group (
    group_id int NOT NULL PRIMARY KEY,
    parent_id int REFERENCES computer_group (group_id),
    name {varchar}(64) NOT NULL
);

CREATE TABLE computer (
    computer_id {generated_key},
    group_id int REFERENCES computer_group (group_id),
    name {varchar}(64) NOT NULL,
    computer_name {varchar}(64),
    network_num int,
    status int
);

CREATE INDEX computer_by_name ON computer ({name_key});

CREATE TABLE hardware (
    computer_id int NOT NULL PRIMARY KEY REFERENCES computer (computer_id),
    serial_num {varchar}(255),
    asset_tag {varchar}(255),
    uuid {varchar}(64),
    manuf {varchar}(255),
    model_num {varchar}(255),
    prod_name {varchar}(255)
);

CREATE INDEX hardware_by_serial ON hardware ({serial_num_key});

CREATE INDEX hardware_by_asset_tag ON hardware ({asset_tag_key});

CREATE INDEX hardware_by_uuid ON hardware ({uuid_key});

CREATE TABLE nics (
    nic_id {generated_key},
    computer_id int NOT NULL REFERENCES computer (computer_id),
    mac_addr {varchar}(32)
);

CREATE INDEX nics_of_computer ON nics (computer_id);

CREATE INDEX nics_by_address ON nics ({mac_addr_key});

CREATE TABLE event_schedule (
    schedule_id {generated_key},
    event_id int NOT NULL REFERENCES event (event_id),
    computer_id int NOT NULL REFERENCES computer (computer_id),
    start_time {datetime},
    status_code int
);

CREATE INDEX event_schedule_of_computer ON event_schedule (computer_id);
