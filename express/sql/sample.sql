-- The job tree of a small university, to try the portal with: twelve menu items.

INSERT INTO computer_group (group_id, parent_id, name) VALUES
    (3, 1, 'Staff'),
    (4, 1, 'Public Access'),
    (5, 1, 'Teaching Labs');

INSERT INTO event_folder (folder_id, parent_id, name) VALUES
    (1, NULL, 'Deploy'),
    (2, 1, 'Staff'),
    (3, 1, 'Public Access'),
    (4, 1, 'Teaching Labs'),
    (5, NULL, 'Maintenance'),
    (6, NULL, 'Archive'),
    (10, 2, 'Standard Desktop (MI)'),
    (11, 2, 'Standard Laptop (MI)'),
    (12, 2, 'Finance Office (MI)'),
    (13, 12, 'Finance Applications'),
    (20, 3, 'Library Kiosk (MI)'),
    (21, 3, 'Student Desktop (MI)'),
    (22, 3, 'Exam Mode (MI)'),
    (30, 4, 'CAD Lab (MI)'),
    (31, 4, 'Media Lab (MI)'),
    (40, 1, 'Building Blocks');

INSERT INTO event (event_id, folder_id, name, description) VALUES
    (2000101, 10, '1. Check hardware', NULL),
    (2000102, 10, '2. Update firmware', 'Vendor packages, by model'),
    (2000103, 10, '3. Partition disk', NULL),
    (2000104, 10, '4. Lay down Windows 11', 'Image W11-24H2-EDU'),
    (2000105, 10, '5. Inject drivers', NULL),
    (2000106, 10, '6. Join domain', NULL),
    (2000107, 10, '7. Install Office', NULL),
    (2000108, 10, '8. Install printers', NULL),
    (2000109, 10, '9. Encrypt disk', NULL),
    (2000110, 10, '10. Hand over', 'Writes the inventory and shuts down'),
    (2000111, 10, '(MI)', 'Windows 11 for staff desktops'),
    (2000120, 11, '1. Lay down Windows 11', 'Image W11-24H2-EDU'),
    (2000121, 11, '2. Inject drivers', NULL),
    (2000122, 11, '3. Join domain', NULL),
    (2000123, 11, '4. Install VPN and Office', NULL),
    (2000124, 11, '5. Encrypt disk', NULL),
    (2000125, 11, '(MI)', 'Windows 11 for staff laptops'),
    (2000130, 12, '1. Lay down Windows 11', 'Image W11-24H2-EDU'),
    (2000131, 12, '2. Join domain', NULL),
    (2000132, 13, '1. Install ledger client', NULL),
    (2000133, 13, '2. Install payroll client', NULL),
    (2000140, 20, '1. Lay down kiosk image', 'Image KIOSK-LIB'),
    (2000141, 20, '2. Lock settings', NULL),
    (2000142, 20, '(MI)', 'Library catalogue kiosk'),
    (2000150, 21, '1. Lay down Windows 11', 'Image W11-24H2-STUDENT'),
    (2000151, 21, '2. Join domain', NULL),
    (2000152, 21, '3. Install student software', NULL),
    (2000160, 22, '1. Lay down exam image', 'Image EXAM'),
    (2000161, 22, '2. Close network', NULL),
    (2000170, 30, '1. Lay down Windows 11', 'Image W11-24H2-STUDENT'),
    (2000171, 30, '2. Install CAD suite', NULL),
    (2000172, 30, '3. Point at licence server', NULL),
    (2000180, 31, '1. Lay down Windows 11', 'Image W11-24H2-STUDENT'),
    (2000181, 31, '2. Install editing suite', NULL),
    (2000190, 5, 'Memory test (MI)', NULL),
    (2000191, 5, 'Wipe disk (MI)', 'Wipe the disk before disposal'),
    (2000192, 5, 'Take inventory (MI)', NULL),
    (2000193, 5, 'Back up to server (MI)', 'Back up the disk to the server'),
    (2000194, 5, 'Restart', NULL),
    (2000200, 40, 'Join domain', NULL),
    (2000201, 40, 'Inject drivers', NULL),
    (2000210, 6, 'Lay down Windows 7', 'Image W7-SP1, out of service');

INSERT INTO computer (group_id, name, status) VALUES
    (3, 'STAFF-0117', 1),
    (3, 'STAFF-0118', 1),
    (4, 'LIB-KIOSK-01', 1),
    (5, 'CAD-LAB-01', 0),
    (5, 'CAD-LAB-02', 0);

INSERT INTO hardware (computer_id, serial_num, asset_tag, uuid, manuf, prod_name)
SELECT computer_id, '5CG9207XK1', 'U-10117', '6F0C2B5E-31D4-4A7C-9B52-0D6E8A1F4C01', 'HP',
    'HP EliteDesk 800 G6' FROM computer WHERE name = 'STAFF-0117';

INSERT INTO hardware (computer_id, serial_num, asset_tag, uuid, manuf, prod_name)
SELECT computer_id, '5CG9207XK2', 'U-10118', '6F0C2B5E-31D4-4A7C-9B52-0D6E8A1F4C02', 'HP',
    'HP EliteDesk 800 G6' FROM computer WHERE name = 'STAFF-0118';

INSERT INTO hardware (computer_id, serial_num, asset_tag, uuid, manuf, prod_name)
SELECT computer_id, 'PC1A7Q9B', 'U-20001', '91A4D7C8-55B0-11EE-8C5A-3C18A04B7F11', 'LENOVO',
    'ThinkCentre M75n' FROM computer WHERE name = 'LIB-KIOSK-01';

INSERT INTO hardware (computer_id, serial_num, asset_tag, uuid, manuf, prod_name)
SELECT computer_id, '7GX2ND3', 'U-30001', '4C4C4544-0047-5810-8032-B7C04F4E4433', 'Dell Inc.',
    'Precision 3660' FROM computer WHERE name = 'CAD-LAB-01';

INSERT INTO hardware (computer_id, serial_num, asset_tag, uuid, manuf, prod_name)
SELECT computer_id, '7GX2NF3', 'U-30002', '4C4C4544-0047-5810-8032-B7C04F4E4633', 'Dell Inc.',
    'Precision 3660' FROM computer WHERE name = 'CAD-LAB-02';

INSERT INTO nics (computer_id, mac_addr)
SELECT computer_id, '3C5282A1B701' FROM computer WHERE name = 'STAFF-0117';

INSERT INTO nics (computer_id, mac_addr)
SELECT computer_id, '3C5282A1B702' FROM computer WHERE name = 'STAFF-0118';

INSERT INTO nics (computer_id, mac_addr)
SELECT computer_id, '3C18A04B7F11' FROM computer WHERE name = 'LIB-KIOSK-01';

INSERT INTO nics (computer_id, mac_addr)
SELECT computer_id, 'B07B25C4D101' FROM computer WHERE name = 'CAD-LAB-01';

INSERT INTO nics (computer_id, mac_addr)
SELECT computer_id, 'B07B25C4D102' FROM computer WHERE name = 'CAD-LAB-02';
