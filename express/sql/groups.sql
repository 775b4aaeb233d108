-- Computer groups that every deployment server has a use for.

INSERT INTO computer_group (group_id, parent_id, name) VALUES
    (1, NULL, 'All Computers'),
    (2, 1, 'New Computers');
